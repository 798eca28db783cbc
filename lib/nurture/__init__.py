"""Nurture: any model x any training transform x any data, measured while it trains."""
