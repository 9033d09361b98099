"""Data sets of mammograms with their truth, whatever form they were published in."""
