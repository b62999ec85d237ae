"""The machinery that drills share: servers, links that break, disks that fill or lose power, publishers, the verdict."""
