"""The steps of a reconstruction, one module for each kind of scan; `medrecon.pipeline` says in which order they are taken."""
