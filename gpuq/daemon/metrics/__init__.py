"""What monitoring reads of this daemon: families of metrics, as Prometheus takes them."""
