"""What crosses a stage border as Parquet, and how it is read."""
