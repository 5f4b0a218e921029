"""The limits of the method, on cached vectors: how far corruption moves embeddings, and where enhancement helps."""
