"""Reports of a comparison: HTML and Markdown for reading, JSON and CSV for programs."""
