"""Generated from `protos/comity/wire/v1/` by `make protos`; do not edit."""
