"""Images behind URLs that fsspec opens: s3://, gs://, hf:// and others."""
