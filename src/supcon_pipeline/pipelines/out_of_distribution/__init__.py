"""`out_of_distribution`: does the embedding tell images of another kind from the test images?"""
