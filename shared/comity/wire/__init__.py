"""The wire: generated code, one package a version of it."""
