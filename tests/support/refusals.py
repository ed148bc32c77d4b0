"""A knock that is refused."""

import aiohttp

from support.gateways import token_for


async def knock(gateway):
    """The status, error and reason of a refusal that says when to come back."""
    headers = {
        "Authorization": f"Bearer {token_for(gateway, 'veh-1')}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "tidegate.v1",
    }
    url = f"http://127.0.0.1:{gateway.port}/v1/device"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        page = await response.json()
        assert int(response.headers["Retry-After"]) >= 1
        assert page["retry_ms"] >= 1
        return response.status, page["error"], page["reason"]
