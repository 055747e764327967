"""medrecon turns 2D medical series into trustworthy 3D volumes and surfaces. Research use only, not a medical device."""
