"""How good are tables predicted, beside boosting, forests and the best networks of others?"""
