"""What Tables 1 to 3 of Xu et al. 2021 compare gradient rewards with, as functions of updates, sizes and values.

The paper gives names and a line each. Where it says no more, this is how they are read here: unless it says otherwise, a
rule aggregates updates of one length, eq. (1), with weights in proportion to sample counts, and pays shares q of the
aggregate's entries, eq. (5).
"""
