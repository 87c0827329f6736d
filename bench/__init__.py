"""What ingestd costs beside the floors it stands on, measured side by side in one run."""
