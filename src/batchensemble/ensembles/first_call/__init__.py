"""The first call of an ensemble: does the network treat its rows one by one?"""
