"""What nobody owns: orders sent whose answer was lost, and what of an account no trade explains.

In come intents, the trades that freqtrade knows and what the exchange says; out goes, pair by pair,
whether an entry may be sent, and what the user has to hear. It never sends or cancels an order.
"""
