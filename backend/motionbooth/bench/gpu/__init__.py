"""`motionbooth bench gpu`: what this machine's GPU makes of the product, in minutes and without a download."""
