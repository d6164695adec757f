"""How good the detectors are: the zoo and its controls through leakcheck's and through those that people use today."""
