"""Plans, groups, cutting, recovery, costs and export. Submodules other than `plan` and `cost` import torch."""
