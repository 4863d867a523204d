"""Work on whole data sets: invariants, fsck, export, the original service's Redis."""
