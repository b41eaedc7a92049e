"""Ready-made work. A kit sees the public face of the library and never another kit."""
