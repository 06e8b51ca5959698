"""The training cache: a store's episodes as memory-mapped columns, built once and extended as the store grows."""
