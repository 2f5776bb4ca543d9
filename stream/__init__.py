"""Frames over the network: WebRTC in, WebRTC out."""
