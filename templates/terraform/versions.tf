terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.0"
    }
    google-beta = {
      source = "hashicorp/google-beta"
      # The first with additional_pipeline_options: https://github.com/hashicorp/terraform-provider-google-beta/pull/10040
      version = "~> 6.37"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

# The flex template job is a resource of the beta provider only.
provider "google-beta" {
  project = var.project
  region  = var.region
}
