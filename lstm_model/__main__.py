"""`python -m lstm_model` is the command `freqtrade-lstm`."""

from lstm_model.commands.main import main

main()
