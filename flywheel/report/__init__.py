"""What people look at: plots, videos and the HTML report."""
