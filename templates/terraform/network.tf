# Workers without public addresses: Google's services are reached privately, and the internet only if asked for.

locals {
  # Where workers run: the one made here, one of a Shared VPC's host project, or null for the default network.
  subnetwork = one(concat(
    [for subnetwork in google_compute_subnetwork.workers : subnetwork.self_link],
    [for subnetwork in var.shared_subnetwork[*] : "https://www.googleapis.com/compute/v1/${subnetwork}"],
  ))
  private = toset(var.private_network ? ["workers"] : [])
  nat     = toset(var.private_network && var.hub_access ? ["workers"] : [])
}

resource "google_compute_network" "workers" {
  for_each                = local.private
  name                    = var.name
  auto_create_subnetworks = false
  depends_on              = [google_project_service.needed]
}

resource "google_compute_subnetwork" "workers" {
  #checkov:skip=CKV_GCP_76:Private Google access over IPv6 is for subnetworks with IPv6; this one has none.
  for_each                 = local.private
  name                     = var.name
  region                   = var.region
  network                  = google_compute_network.workers[each.key].id
  ip_cidr_range            = var.subnet_range
  private_ip_google_access = true
  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

# Workers shuffle among themselves: https://cloud.google.com/dataflow/docs/guides/routes-firewall
resource "google_compute_firewall" "workers" {
  for_each    = local.private
  name        = "${var.name}-workers"
  network     = google_compute_network.workers[each.key].id
  source_tags = ["dataflow"]
  target_tags = ["dataflow"]
  allow {
    protocol = "tcp"
    ports    = ["12345-12346"]
  }
}

resource "google_compute_router" "workers" {
  for_each = local.nat
  name     = var.name
  region   = var.region
  network  = google_compute_network.workers[each.key].id
}

resource "google_compute_router_nat" "workers" {
  for_each                           = local.nat
  name                               = var.name
  router                             = google_compute_router.workers[each.key].name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"
  subnetwork {
    name                    = google_compute_subnetwork.workers[each.key].id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }
}
