"""`motionbooth doctor`: looks at a backend's folder and at its machine, says what to do, and mends what is safe."""
