"""Programs that use Seawall for real."""
