"""Which files a federation consists of, whatever its layout: nothing is decoded here but mask values, if need be."""
