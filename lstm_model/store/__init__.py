"""Everything on disk: model versions with their cards, the learner's steps, the journal.

In come weights, decisions and forecasts; out goes what was written, checked by its hash. It never
overwrites what was published, never unpickles, and a kill at any moment leaves it readable.
"""
