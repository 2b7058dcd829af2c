"""BuildKit's protocol: what `docker build` and buildx speak to a daemon. The work is `agent.build`'s.

Source: BuildKit, api/services/control/control.proto, frontend/gateway/pb/gateway.proto, session/*; fsutil, types/*.proto.
"""
