"""What a sentence asks for, and what a picture shows."""
