"""Webdataset tars: folders of tars → members → samples → clips."""
