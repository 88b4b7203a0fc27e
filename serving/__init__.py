"""A trained run or its export that predicts; its guard."""
