"""Neural tangent kernels, empirical, deep and infinite, and the theory of kernel and random-feature regression."""
