"""What the scenarios compare with: the same work without the product."""
