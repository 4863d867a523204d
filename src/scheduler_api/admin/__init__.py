"""Work on a store without a server: export, import, fsck."""
