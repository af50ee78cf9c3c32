"""Stage 3: `load` copies bronze objects into the warehouse (`warehouse.Warehouse`)."""
