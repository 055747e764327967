"""Training: examples made from nothing or from volumes, losses, and the engine that turns them into weights.

A recipe is one YAML file (`medrecon.training.config.TrainingConfig`); what a network is trained to do is one file in
`medrecon.training.tasks`, where volumes come from is one file in `medrecon.training.loaders`.
"""
