# Lets the LAN reach Harbor, Kafka, TimescaleDB and Prometheus on this host, and nobody else. As administrator:
#   powershell -ExecutionPolicy Bypass -File firewall.ps1 -Lan 192.168.1.0/24
# With -Mqtt the MQTT broker, too, where it runs on this host (TLS).
param(
    [Parameter(Mandatory = $true)]
    [string] $Lan,
    [switch] $Mqtt
)
$ErrorActionPreference = 'Stop'
$services = [ordered]@{ 'Harbor' = 8080; 'Kafka' = 9092; 'TimescaleDB' = 5432; 'Prometheus' = 9090 }
if ($Mqtt) { $services['MQTT'] = 8883 }

# New rules first: where one cannot be made (a misspelt -Lan), what was open stays open.
$before = @(Get-NetFirewallRule -DisplayName 'IoT platform: *' -ErrorAction SilentlyContinue)
foreach ($service in $services.GetEnumerator()) {
    $name = "IoT platform: $($service.Key)"
    New-NetFirewallRule -DisplayName $name -Direction Inbound -Action Allow -Protocol TCP -LocalPort $service.Value -RemoteAddress $Lan -Profile Any | Out-Null
}
# All of them, also MQTT's where -Mqtt is no longer given.
$before | Remove-NetFirewallRule

# Docker Desktop brings a rule that lets everybody in to whatever a container publishes; it would outweigh ours.
Get-NetFirewallRule -DisplayName 'Docker Desktop Backend' -ErrorAction SilentlyContinue | Disable-NetFirewallRule

Get-NetFirewallRule -DisplayName 'IoT platform: *' | Get-NetFirewallPortFilter | Format-Table LocalPort, Protocol
