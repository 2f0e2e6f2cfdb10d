"""`make demo`: from a cluster, or none, to pictures of a new subject.

The law of this package: it uses the platform as a user would, through helm, kubectl and HTTP. It imports the API's
vocabulary and `dreambooth_local`, and nothing of operator, trainer or server.
"""
