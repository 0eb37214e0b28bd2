"""What clients rely on, case by case, against the real process: the numbers in the names are the cases."""
