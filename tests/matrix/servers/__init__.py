"""One server for each SDK; all offer what ``vocabulary.json`` says, over HTTP and over stdio."""
