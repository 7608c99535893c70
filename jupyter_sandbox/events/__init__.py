"""What this extension says on Jupyter's event system: schemas, and who emits them."""
