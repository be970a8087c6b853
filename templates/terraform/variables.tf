variable "project" {
  type        = string
  description = "Project id of everything made here."
}

variable "region" {
  type        = string
  description = "Region of the job, the bucket, the dataset and the images."
}

variable "name" {
  type        = string
  default     = "inference"
  description = "Beginning of every name."
  validation {
    condition     = can(regex("^[a-z][-a-z0-9]{1,19}[a-z0-9]$", var.name))
    error_message = "Use 3 to 21 lower-case letters, digits and dashes: service accounts allow no more."
  }
}

variable "retention_days" {
  type        = number
  default     = 7
  description = "How long unacknowledged messages are kept."
  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 31
    error_message = "Pub/Sub keeps messages for 1 to 31 days."
  }
}

variable "input_schema" {
  type        = object({ name = string, encoding = string })
  default     = null
  description = "Schema of the input topic, one of this project, and its encoding, BINARY or JSON; null takes any message."
  validation {
    condition     = var.input_schema == null || can(regex("^[A-Za-z][^/ ]+ (BINARY|JSON)$", "${var.input_schema.name} ${var.input_schema.encoding}"))
    error_message = "Use the schema's name without its project, and BINARY or JSON."
  }
}

variable "audit_expiration_days" {
  type        = number
  default     = null
  description = "When the audit table's partitions are deleted; null keeps them."
}

variable "summaries" {
  type        = bool
  default     = false
  description = "Whether the job sums up its windows, into a table and a topic made here: --summary_table and --summary_topic."
}

variable "prove" {
  type        = bool
  default     = false
  description = "Whether Pub/Sub keeps a second record of the input topic, bodies included, for beam-hf-inference audit prove."
}

variable "prove_days" {
  type        = number
  default     = 7
  description = "How long that record is kept."
  validation {
    condition     = var.prove_days >= 1
    error_message = "A record of less than a day proves nothing of yesterday."
  }
}

variable "kms_key" {
  type        = string
  default     = null
  description = "Cloud KMS key (projects/…/cryptoKeys/…) for topics, table, bucket, images, secret and workers; null uses Google's."
}

variable "hf_token" {
  type        = bool
  default     = false
  description = "Whether to make a secret for a Hugging Face token; its value is added by hand and never in Terraform's state."
}

variable "vertex_endpoint" {
  type        = string
  default     = null
  description = "Vertex AI endpoint that workers may call, for --endpoint=vertex:…: projects/PROJECT/locations/LOCATION/endpoints/ID."
  validation {
    condition     = var.vertex_endpoint == null || can(regex("^projects/[^/]+/locations/[^/]+/endpoints/[^/]+$", var.vertex_endpoint))
    error_message = "Use projects/PROJECT/locations/LOCATION/endpoints/ID, without vertex: before it."
  }
}

variable "cloud_run_service" {
  type        = string
  default     = null
  description = "Cloud Run service that workers may call, for --endpoint_auth=google-id: projects/PROJECT/locations/LOCATION/services/NAME."
  validation {
    condition     = var.cloud_run_service == null || can(regex("^projects/[^/]+/locations/[^/]+/services/[^/]+$", var.cloud_run_service))
    error_message = "Use projects/PROJECT/locations/LOCATION/services/NAME, as gcloud run services describe gives it."
  }
}

variable "private_network" {
  type        = bool
  default     = false
  description = "Whether workers run without public addresses in a network of their own."
}

variable "subnet_range" {
  type        = string
  default     = "10.128.0.0/24"
  description = "Addresses of the private network's workers."
}

variable "shared_subnetwork" {
  type        = string
  default     = null
  description = "Subnetwork of a Shared VPC for the workers, in place of private_network: projects/HOST/regions/REGION/subnetworks/NAME."
  validation {
    condition     = var.shared_subnetwork == null || (can(regex("^projects/[^/]+/regions/[^/]+/subnetworks/[^/]+$", var.shared_subnetwork)) && !var.private_network)
    error_message = "Use projects/HOST/regions/REGION/subnetworks/NAME, and leave private_network false."
  }
}

variable "hub_access" {
  type        = bool
  default     = false
  description = "Whether private workers reach the internet through Cloud NAT: needed to fetch a hub model at start, or to call --endpoint."
}

variable "github_repository" {
  type        = object({ id = string, owner_id = string })
  default     = null
  description = "Repository whose main branch may build and launch, through Workload Identity Federation, by its numbers: gh api repos/OWNER/NAME --jq '{id: .id, owner_id: .owner.id}'. Null lets nobody."
  validation {
    condition     = var.github_repository == null || can(regex("^[0-9]+ [0-9]+$", "${var.github_repository.id} ${var.github_repository.owner_id}"))
    error_message = "Give both as numbers: a name can be given up, and taken by somebody else."
  }
}

variable "build_members" {
  type        = list(string)
  default     = []
  description = "Who may submit builds that run as the builder, such as user:ada@example.com; they also need roles/cloudbuild.builds.editor on the project."
}

variable "launch_members" {
  type        = list(string)
  default     = []
  description = "Who may act as the launcher, such as user:ada@example.com."
}

variable "throwaway" {
  type        = bool
  default     = false
  description = "Whether destroy may take table, bucket and their contents along, as templates/smoke.sh does under a name of its own."
}

variable "notification_channels" {
  type        = list(string)
  default     = []
  description = "Where alerts go: names of monitoring notification channels."
}

variable "job" {
  type = object({
    template              = string
    image                 = string
    flags                 = map(string)
    beam_options          = optional(list(string), [])
    mode                  = optional(string, "exactly_once")
    machine_type          = optional(string, "n2-standard-4")
    disk_gb               = optional(number, 50)
    max_workers           = optional(number, 4)
    min_workers           = optional(number)
    utilization           = optional(number)
    launcher_machine_type = optional(string, "n2-standard-2")
    accelerator           = optional(string)
    driver                = optional(string, "5xx")
    additional_services   = optional(list(string), [])
    generation            = optional(number, 1)
  })
  default     = null
  description = "The job: the container spec and the image that deploy.sh build made, and the flags beside those that name resources; Beam's own go into beam_options as name=value. Another generation drains it and starts anew. Null makes all but the job."
  validation {
    condition     = var.job == null || contains(["exactly_once", "at_least_once"], try(var.job.mode, ""))
    error_message = "job.mode: use exactly_once or at_least_once."
  }
}
