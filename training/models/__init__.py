"""What every model of a run is loaded, trained and run by."""
