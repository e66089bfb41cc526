"""The networks of the paper as NetSpecs; networks of your own go here too."""
