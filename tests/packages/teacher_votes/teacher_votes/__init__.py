"""Labels by vote: a student asks several teachers (as PATE's ensembles do), or many clients pool what they would say.

The inputs are public: both sides draw them from the session's seed, so that no sample crosses; what crosses are votes.
"""
