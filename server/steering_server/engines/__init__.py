"""What generates tokens. One room per engine; they know nothing of HTTP and nothing of each other."""
