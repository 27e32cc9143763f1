"""Recipes that pretrain each backbone as a classifier, as the papers state them."""
