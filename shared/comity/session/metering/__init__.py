"""Small requests that are charged one by one, in statements about many.

A durable write for each of thousands of requests would cost a sync each. So each request has a *number*, which names it
whatever happens: asked again, after a cut or a restart, it is answered again and charged once. The party that answers keeps
which numbers a batch of answers is for, in one commit, before any of them leaves. From time to time the two settle: the party
that asked signs a request for as many units as were answered, the other a receipt, over the numbers and the bytes that they
took. Until then it has credit for so many. What was not answered is not charged.
"""
